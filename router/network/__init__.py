"""The way to the portal, over the network or by courier. Nothing here is loaded offline."""
