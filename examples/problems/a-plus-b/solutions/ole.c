#include <stdio.h>

int main(void) {
    while (puts("much, much more than anybody wants to read, again and again") >= 0) {}
}
