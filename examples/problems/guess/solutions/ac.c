#include <stdio.h>

int main(void) {
    long long low = 1, high = 1000000000;
    char answer = 0;
    while (answer != '=') {
        long long guess = (low + high) / 2;
        printf("%lld\n", guess);
        fflush(stdout);
        if (scanf(" %c", &answer) != 1) return 1;
        if (answer == '<') high = guess - 1;
        else low = guess + 1;
    }
}
