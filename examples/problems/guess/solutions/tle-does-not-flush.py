import sys

print(500_000_000)
sys.stdin.readline()
