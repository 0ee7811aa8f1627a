// interactor INPUT OUTPUT ANSWER: stdin is what the program prints, stdout is what it reads.
// Ends with testlib's exit codes: 0 right, 1 wrong, 3 the test data is broken.
#include <cstdio>
#include <fstream>

static int wrong(const char *why) {
    std::fprintf(stderr, "%s\n", why);
    return 1;
}

int main(int, char **argv) {
    long long secret, most, guess;
    if (!(std::ifstream(argv[1]) >> secret) || !(std::ifstream(argv[3]) >> most)) return 3;
    for (long long count = 1; count <= most; count++) {
        if (std::scanf("%lld", &guess) != 1) return wrong("no guess came");
        std::printf("%c\n", guess == secret ? '=' : guess > secret ? '<' : '>');
        std::fflush(stdout);
        if (guess == secret) {
            std::fprintf(stderr, "%lld guesses\n", count);
            return 0;
        }
    }
    return wrong("too many guesses");
}
