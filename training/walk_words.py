"""The words of questions about walks that those about single scenes do not have."""

WALK_WORDS = (
    *("was", "were", "did", "have", "seen", "different", "when", "entered", "came", "stood"),
    *("where", "stand", "now", "nearer", "closer", "view", "first", "middle", "last", "in", "to", "you"),
)
