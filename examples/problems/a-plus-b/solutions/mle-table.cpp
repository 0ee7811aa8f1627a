#include <iostream>
#include <vector>

int main() {
    std::vector<long long> sums;
    for (long long n = 0; n < 100'000'000; n++) sums.push_back(n);
    long long a, b;
    std::cin >> a >> b;
    std::cout << a + b + sums[0] << '\n';
}
