from prompt_tuning.data import metrics, batches
import numpy as np
def test_a():
    metrics._word_f1(3, 4) if False else metrics._plain(3)
def test_b():
    r=batches.Ragged.from_rows([np.arange(3)])
    r[np.int64(0)]
