#include <math.h>
#include <stdio.h>
#include <stdlib.h>

int main(void) {
    static double x[10];
    int n;
    double sum = 0, squares = 0;
    if (scanf("%d", &n) != 1) return 1;
    if (n > 10) abort();
    for (int i = 0; i < n; i++) {
        if (scanf("%lf", &x[i]) != 1) return 1;
        sum += x[i];
    }
    for (int i = 0; i < n; i++) squares += (x[i] - sum / n) * (x[i] - sum / n);
    printf("%.10f %.10f\n", sum / n, sqrt(squares / n));
}
