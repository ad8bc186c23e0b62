"""How good a search is: in virtual time, on learning curves that are known."""
