"""placeholder"""
def flags_of(run, record, notes, *, full):
    return ()
