// Keeps the distances of all pairs.
#include <cmath>
#include <iostream>
#include <vector>

int main() {
    int n;
    std::cin >> n;
    std::vector<double> x(n), distances;
    double sum = 0, squares = 0;
    for (double &value : x) {
        std::cin >> value;
        sum += value;
    }
    for (double one : x)
        for (double other : x) distances.push_back(one - other);
    for (double distance : distances) squares += distance * distance;
    std::cout.precision(12);
    std::cout << sum / n << ' ' << std::sqrt(squares / 2 / n / n) << '\n';
}
