// Right for small numbers: gets the first task's points and not the second's.
#include <cmath>
#include <iostream>

int main() {
    int n;
    float sum = 0, squares = 0;
    std::cin >> n;
    for (int i = 0; i < n; i++) {
        float value;
        std::cin >> value;
        sum += value;
        squares += value * value;
    }
    const float mean = sum / n;
    std::cout << mean << ' ' << std::sqrt(std::fabs(squares / n - mean * mean)) << '\n';
}
