PAD, BOS, EOS, UNK = range(4)
