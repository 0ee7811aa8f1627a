#include <stdio.h>

int main(void) {
    puts("is it large?");
}
