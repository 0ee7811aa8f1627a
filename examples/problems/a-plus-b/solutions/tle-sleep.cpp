#include <chrono>
#include <iostream>
#include <thread>

int main() {
    long long a, b;
    std::cin >> a >> b;
    if (a == 1) std::this_thread::sleep_for(std::chrono::hours(1));
    std::cout << a + b << '\n';
}
