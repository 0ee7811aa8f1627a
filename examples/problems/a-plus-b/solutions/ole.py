line = "7" * 65536
while True:
    print(line)
