#include <iostream>

int main() {
    long long low = 1, high = 1'000'000'000;
    for (char answer = 0; answer != '=';) {
        const long long guess = (low + high) / 2;
        std::cout << guess << std::endl;
        std::cin >> answer;
        (answer == '<' ? high : low) = answer == '<' ? guess - 1 : guess + 1;
    }
}
