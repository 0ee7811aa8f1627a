#include <cmath>
#include <iomanip>
#include <iostream>
#include <numeric>
#include <vector>

int main() {
    int n;
    std::cin >> n;
    std::vector<double> x(n);
    for (double &value : x) std::cin >> value;
    const double mean = std::accumulate(x.begin(), x.end(), 0.0) / n;
    double squares = 0;
    for (double value : x) squares += (value - mean) * (value - mean);
    std::cout << std::setprecision(12) << mean << ' ' << std::sqrt(squares / n) << '\n';
}
