int main(void) {
    for (volatile unsigned long long n = 0;; n++) {}
}
