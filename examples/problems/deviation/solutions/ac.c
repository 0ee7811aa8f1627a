#include <math.h>
#include <stdio.h>

static double x[5000];

int main(void) {
    int n;
    double sum = 0, squares = 0;
    if (scanf("%d", &n) != 1) return 1;
    for (int i = 0; i < n; i++) {
        if (scanf("%lf", &x[i]) != 1) return 1;
        sum += x[i];
    }
    for (int i = 0; i < n; i++) squares += (x[i] - sum / n) * (x[i] - sum / n);
    printf("%.10f %.10f\n", sum / n, sqrt(squares / n));
}
