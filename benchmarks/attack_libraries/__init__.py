"""The same attacks by Foolbox, by ART and by this toolkit, on the same verifier and pairs."""
