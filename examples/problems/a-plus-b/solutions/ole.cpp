#include <iostream>
#include <string>

int main() {
    const std::string line(1 << 16, '7');
    while (std::cout << line) {}
}
