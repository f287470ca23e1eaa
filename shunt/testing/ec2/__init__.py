"""A double of EC2: moto behind a layer that has capacity, prices, quotas, faults and notices."""
