/**
 * The select layers of one step: gathers the candidates of all workers and chooses. Knows candidates; knows nothing of
 * connections or deadlines.
 */

import { at } from "../../kernels/at.ts";
import type { Candidates } from "../../engine/exchange.ts";
import { ProtocolError } from "../../workers/errors.ts";
import { cutLists, joinWords } from "../../workers/position_lists.ts";
import type { CandidateLists, ChosenLists } from "../../workers/protocol.ts";
import { chooseBest } from "./choose_positions.ts";

/** What was chosen at a select layer, for all sparse rows of a batch. */
export interface Choice {
  readonly message: ChosenLists;
  readonly layer: number;
  readonly rows: Candidates["rows"];
  /** Row by row, set by set. */
  readonly lists: readonly Uint32Array[];
}

/** One round for each select layer and batch. */
export class CandidateRounds {
  readonly #workers: number;
  readonly #step: number;
  readonly #rounds = new Map<string, Map<number, CandidateLists>>();

  constructor(workers: number, step: number) {
    this.#workers = workers;
    this.#step = step;
  }

  /**
   * Takes the candidates of one worker; the last one completes the round.
   * @throws {ProtocolError} when it is of another step, comes twice, or is for other rows than those of the others
   */
  take(worker: number, candidates: CandidateLists): Choice | undefined {
    const { step, batch, layer, rows, lengths } = candidates;
    if (step !== this.#step) {
      throw new ProtocolError(`Cannot take candidates of step ${step}: step ${this.#step} runs`);
    }
    const key = `${batch}/${layer}`;
    const round = this.#rounds.get(key) ?? new Map<number, CandidateLists>();
    this.#rounds.set(key, round);
    if (round.has(worker)) throw new ProtocolError(`Cannot take candidates of layer ${layer}: they come twice`);
    const first = round.values().next().value ?? candidates;
    const lists = rows.reduce((sum, { sets }) => sum + sets, 0);
    if (lists !== lengths.length || JSON.stringify(first.rows) !== JSON.stringify(rows)) {
      throw new ProtocolError(`Cannot take candidates of layer ${layer}: they are for other rows than those of others`);
    }
    round.set(worker, candidates);
    if (round.size < this.#workers) return undefined;
    this.#rounds.delete(key);
    return choose([...round.values()], candidates);
  }
}

function choose(all: readonly CandidateLists[], { epoch, step, batch, layer, rows }: CandidateLists): Choice {
  const ofWorkers = all.map(({ lengths, positions, values }) => ({
    positions: cutLists(positions, lengths),
    values: cutLists(values, lengths),
  }));
  const bounds = rows.flatMap((row) => Array.from({ length: row.sets }, () => row));
  const lists = bounds.map((row, i) => {
    const ofList = ofWorkers.map(({ positions, values }) => ({
      positions: at(positions, i),
      values: at(values, i),
    }));
    return chooseBest(ofList, row);
  });
  const lengths = Uint32Array.from(lists, ({ length }) => length);
  return { message: { epoch, step, batch, layer, lengths, positions: joinWords(lists) }, layer, rows, lists };
}
