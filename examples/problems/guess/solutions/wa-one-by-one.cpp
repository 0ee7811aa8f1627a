#include <iostream>

int main() {
    char answer = 0;
    for (long long guess = 1; answer != '=' && guess <= 1'000'000'000; guess++) {
        std::cout << guess << std::endl;
        if (!(std::cin >> answer)) break;
    }
}
