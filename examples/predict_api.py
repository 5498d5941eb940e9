"""Use a trained model from Python: order, further orders, coherence, other ways to decode.

python examples/predict_api.py --model_path runs/1/model
"""

import argparse

from sentorder import SentenceOrderer

DOCUMENTS = [
    ["She struck a match.", "The lamp would not light.", "Then she saw that there was no oil in it."],
    ["Bake for twenty minutes.", "Beat the eggs with the sugar.", "Pour the mixture into a tin.", "Fold in the flour."],
]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model_path", required=True, help="the model/ folder of a run")
    orderer = SentenceOrderer.from_pretrained(parser.parse_args().model_path)

    # The order in which sentences are given plays no part. Many documents at once are faster than one by one.
    for found in orderer.order(DOCUMENTS):
        print(f"confidence {found.confidence:.2f}, order {found.order}:")
        print(*(f"  {sentence}" for sentence in found.sentences), sep="\n")

    # The best three orders of the last document; scores compare orders of one document.
    (ranking,) = orderer.best_orders(DOCUMENTS[1:], 3)
    for place, found in enumerate(ranking, start=1):
        print(f"{place}. score {found.score:.3f}, confidence {found.confidence:.2f}: {found.order}")

    # How well do the sentences stand as they stand?
    for sentences, rated in zip(DOCUMENTS, orderer.score(DOCUMENTS), strict=True):
        print(f"tau {rated.tau:+.2f} as given: {sentences[0]} ...")

    # Long documents in pieces; without arguments everything is as before.
    orderer.set_decoding(piece_length=3)
    print("in pieces of three:", orderer.order(DOCUMENTS[1:])[0].order)
    orderer.set_decoding()

    # As the results come, for a progress bar or a stream: pairs of a document's number and its orders.
    for index, (best, *_) in orderer.iter_orders(DOCUMENTS, batch_size=1):
        print(f"document {index}: {best.sentences[0]} ...")


if __name__ == "__main__":
    main()
