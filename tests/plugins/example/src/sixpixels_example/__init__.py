"""An attack and a defense for sixpixels, in a distribution of their own. The tests install it."""
