"""How pgqueue compares with its peers and with bare SQL: `make bench`, or `python -m benchmarks NAME ...`."""
