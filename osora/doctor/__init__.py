"""`osora doctor`: what is right and wrong on this machine, before anything is started."""
