# The deviation from the distances of all pairs: right, but N * N steps.
n = int(input())
x = [int(word) for word in input().split()]
total = 0
for one in x:
    for other in x:
        total += (one - other) ** 2
print(sum(x) / n, (total / (2 * n * n)) ** 0.5)
