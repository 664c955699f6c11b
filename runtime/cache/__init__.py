"""Work that is not done twice: results that are kept, and calls that several runs share while they last."""
