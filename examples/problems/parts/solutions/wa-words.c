#include <stdio.h>

int main(void) {
    puts("one and the rest");
}
