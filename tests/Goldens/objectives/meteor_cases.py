"""METEOR of the pairs in metrics.json, beside it in meteor.json, by NLTK's meteor_score (3.8): words parted by white space, no synonyms.

usage: python meteor_cases.py
"""
import json, os
from nltk.translate.meteor_score import meteor_score

HERE = os.path.dirname(os.path.abspath(__file__))


class NoSynonyms:
    def synsets(self, word):
        return []


with open(os.path.join(HERE, "metrics.json"), encoding="utf-8") as f:
    pairs = json.load(f)["pairs"]
extra = [
    # NLTK's own example, and words whose stems or runs matter
    ("It is a guide to action that ensures that the military will forever heed Party commands",
     "It is a guide to action which ensures that the military always obeys the commands of the party"),
    ("the runners were running quickly", "a runner runs quick"),
    ("one two three four five six", "six five four three two one"),
    ("the the the cat", "the cat the the the"),
]
rows = [dict(reference=p["reference"], candidate=p["candidate"]) for p in pairs] + [dict(reference=r, candidate=c) for r, c in extra]
for row in rows:
    row["meteor"] = meteor_score([row["reference"].split()], row["candidate"].split(), wordnet=NoSynonyms())
with open(os.path.join(HERE, "meteor.json"), "w", encoding="utf-8", newline="\n") as f:
    json.dump(rows, f, ensure_ascii=False, indent=1)
    f.write("\n")
