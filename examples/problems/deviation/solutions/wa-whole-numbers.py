n = int(input())
x = [int(word) for word in input().split()]
mean = sum(x) // n
print(mean, int((sum((value - mean) ** 2 for value in x) // n) ** 0.5))
