// checker INPUT OUTPUT ANSWER: is OUTPUT, which a program printed for INPUT, right?
// Ends with testlib's exit codes: 0 right, 1 wrong, 2 not even of the right form, 3 the test data is broken.
#include <cstdio>
#include <fstream>
#include <string>

static int end(int code, const char *why) {
    std::fprintf(stderr, "%s\n", why);
    return code;
}

int main(int, char **argv) {
    long long whole, one, other;
    std::string rest;
    if (!(std::ifstream(argv[1]) >> whole)) return end(3, "the input has no number");
    std::ifstream output(argv[2]);
    if (!(output >> one >> other) || output >> rest) return end(2, "not two integers");
    if (one < 1 || other < 1 || one > whole || other > whole) return end(1, "a part is out of range");
    return one + other == whole ? end(0, "right") : end(1, "the sum is another");
}
