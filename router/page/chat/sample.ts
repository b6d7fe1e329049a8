/** A long text to try things with: sentences of an old book in a random order, and one fact hidden among them. */

import type { Attachment } from "./conversation.ts";
import { attachmentOf } from "./attachments.ts";

/** From the first chapter of Moby-Dick (1851), in the public domain. */
const SENTENCES = [
  "Some years ago, never mind how long precisely, having little or no money in my purse, and nothing particular to interest me on shore, I thought I would sail about a little and see the watery part of the world.",
  "It is a way I have of driving off the spleen and regulating the circulation.",
  "There now is your insular city of the Manhattoes, belted round by wharves as Indian isles by coral reefs.",
  "Right and left, the streets take you waterward.",
  "Its extreme downtown is the battery, where that noble mole is washed by waves, and cooled by breezes, which a few hours previous were out of sight of land.",
  "Look at the crowds of water-gazers there.",
  "Circumambulate the city of a dreamy Sabbath afternoon.",
  "Posted like silent sentinels all around the town, stand thousands upon thousands of mortal men fixed in ocean reveries.",
  "Some leaning against the spiles; some seated upon the pier-heads; some looking over the bulwarks of ships from China.",
  "But these are all landsmen; of week days pent up in lath and plaster, tied to counters, nailed to benches, clinched to desks.",
  "Nothing will content them but the extremest limit of the land; loitering under the shady lee of yonder warehouses will not suffice.",
  "They must get just as nigh the water as they possibly can without falling in.",
  "Let the most absent-minded of men be plunged in his deepest reveries, and he will infallibly lead you to water, if water there be in all that region.",
  "Why did the poor poet of Tennessee, upon suddenly receiving two handfuls of silver, deliberate whether to buy him a coat, which he sadly needed, or invest his money in a pedestrian trip to Rockaway Beach?",
  "Surely all this is not without meaning.",
  "Now, when I say that I am in the habit of going to sea whenever I begin to grow hazy about the eyes, I do not mean to have it inferred that I ever go to sea as a passenger.",
  "No, when I go to sea, I go as a simple sailor, right before the mast, plumb down into the forecastle, aloft there to the royal mast-head.",
  "What of it, if some old hunks of a sea-captain orders me to get a broom and sweep down the decks?",
  "Again, I always go to sea as a sailor, because they make a point of paying me for my trouble.",
  "The act of paying is perhaps the most uncomfortable infliction that the two orchard thieves entailed upon us.",
  "Finally, I always go to sea as a sailor, because of the wholesome exercise and pure air of the forecastle deck.",
  "Chief among these motives was the overwhelming idea of the great whale himself.",
  "With other men, perhaps, such things would not have been inducements; but as for me, I am tormented with an everlasting itch for things remote.",
  "I love to sail forbidden seas, and land on barbarous coasts.",
];

/** Words that a fact can be about. */
const PLACES = ["harbour", "lantern", "anchor", "compass", "island", "whale"];

/** A text with a fact in it, and the question that asks for the fact. */
export interface Sample {
  readonly attachment: Attachment;
  readonly question: string;
}

/** @param tokens about how long the text becomes */
export function sampleOf(tokens: number): Sample {
  const words = Math.floor(tokens * 0.68);
  const text: string[] = [];
  let count = 0;
  while (count < words) {
    const sentence = SENTENCES[Math.floor(Math.random() * SENTENCES.length)] ?? "";
    text.push(sentence);
    count += sentence.split(" ").length;
  }
  const place = PLACES[Math.floor(Math.random() * PLACES.length)] ?? "harbour";
  const code = 100_000 + Math.floor(Math.random() * 900_000);
  const depth = 0.15 + 0.7 * Math.random();
  text.splice(Math.floor(text.length * depth), 0, `The magic number for ${place} is: ${code}.`);
  return {
    attachment: attachmentOf(
      "Sample text.txt",
      `Read the following text and answer the questions.\n\n${text.join(" ")}`,
    ),
    question: `What is the magic number for ${place}?`,
  };
}
