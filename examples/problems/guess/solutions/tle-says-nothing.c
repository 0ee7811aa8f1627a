// Waits for the judge, which waits for a guess.
#include <stdio.h>

int main(void) {
    return getchar();
}
