"""How an origin is found: its address, the discovery of the federation, the director, and where requests are sent."""
