"""The daemon on the network: keys, devices, pairing, and being found."""
