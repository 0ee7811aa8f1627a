#include <string>

int main() {
    const std::string sum = 1 + 2;
    return sum;
}
