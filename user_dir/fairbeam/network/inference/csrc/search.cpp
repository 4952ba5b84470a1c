#include "search.h"

#if FAIRBEAM_X86

#include <algorithm>
#include <vector>

#include "attention.h"
#include "beams.h"
#include "export.h"
#include "rowwise.h"

namespace fairbeam {
namespace {

// A search between its steps. At a search's first step all beams of a sentence are equal, so that one of them is run.
class RunningSearch {
  public:
    explicit RunningSearch(BeamSearchSteps& search)
        : a(search),
          step(*search.step),
          batch(step.batch),
          beams(step.beams),
          width(2 * beams),
          dim(step.layers[0]->qkv->inputs),
          slots(search.slots, search.slots + batch * beams * step.steps),
          x(batch * beams * dim),
          before(batch * beams),
          totals(batch * beams),
          latest(batch * beams),
          picked(batch * beams),
          parents(batch * beams),
          added(batch * beams),
          ends(batch * width),
          empty(batch * beams) {}

    int64_t run() {
        for (int64_t made = 0;; ++made) {
            score(made);
            const bool stops = made + 1 == a.max_steps || some_end();
            if (step.beams < beams) longer.assign(batch * beams, 0);  // slot 0 is in every beam's history
            if (stops) {
                std::copy(longer.begin(), longer.end(), a.slots);
                return made + 1;
            }
            extend(a.filled + made);
        }
    }

  private:
    // Embed the latest tokens, run the layers, and find candidates.
    void score(int64_t made) {
        const int64_t steps = a.step->steps + made, run = steps ? beams : 1, stride = beams / run;
        for (int64_t row = 0; row < batch * run; ++row) {
            const int64_t token = a.tokens[row * stride * a.room + a.filled + made - 1];
            latest[row] = a.shortlist ? a.shortlist->token_ids[token] : token;
            before[row] = a.totals[row * stride];
        }
        const int64_t position = std::min(a.embedding->first_position + made, a.embedding->last_position);
        embed({.tokens = latest.data(),
               .vectors = a.embedding->vectors,
               .position_ids = &position,
               .positions = a.embedding->positions,
               .out = x.data(),
               .count = batch * run,
               .different = 1,
               .width = dim,
               .scale = a.embedding->scale});
        run_layers(steps, run);
        best_continuations({.features = x.data(),
                            .projection = a.projection,
                            .shortlist = a.shortlist,
                            .totals = before.data(),
                            .masked = a.masked,
                            .best_totals = a.best_totals,
                            .parents = a.parents,
                            .tokens = a.chosen,
                            .batch = batch,
                            .beams = run,
                            .count = width,
                            .masked_count = a.masked_count});
    }

    void run_layers(int64_t steps, int64_t run) {
        step.x = x.data();
        step.start = steps ? 1 + (steps - 1) * beams : 0;
        step.steps = steps + 1;
        step.beams = run;
        longer.resize(batch * run * step.steps);
        append_slots({.history = slots.data(),
                      .longer = longer.data(),
                      .batch = batch,
                      .beams = run,
                      .steps = steps,
                      .first = step.start});
        step.slots = longer.data();
        decoder_step(step);
        if (a.final_norm) apply_norm(*a.final_norm, x.data(), nullptr, x.data(), batch * run, dim);
    }

    // Find the candidates that end; return whether one of a sentence's first candidates does.
    bool some_end() {
        find_ended({.totals = a.best_totals,
                    .tokens = a.chosen,
                    .ignored = a.ignored,
                    .ends = ends.data(),
                    .batch = batch,
                    .beams = beams,
                    .width = width,
                    .eos = a.eos});
        bool some = false;
        for (int64_t row = 0; row < batch; ++row) {
            for (int64_t i = 0; i < beams; ++i) some |= ends[row * width + i] != 0;
        }
        return some;
    }

    // Continue hypotheses, of `filled` tokens, with the best candidates, none of which ends.
    void extend(int64_t filled) {
        choose_survivors({.ends = ends.data(),
                          .ignored = a.ignored,
                          .chosen = picked.data(),
                          .empty = empty.data(),
                          .batch = batch,
                          .beams = beams,
                          .width = width});
        std::copy(empty.begin(), empty.end(), a.ignored);
        slots.resize(longer.size());
        for (int64_t row = 0; row < batch * beams; ++row) {
            const int64_t first = row / beams * beams, candidate = row / beams * width + picked[row];
            parents[row] = a.parents[candidate];
            added[row] = a.chosen[candidate];
            totals[row] = a.best_totals[candidate];
            std::copy_n(&longer[(first + parents[row]) * step.steps], step.steps, &slots[row * step.steps]);
        }
        extend_beams({.tokens = a.tokens,
                      .history = a.history,
                      .parents = parents.data(),
                      .added = added.data(),
                      .totals = totals.data(),
                      .batch = batch,
                      .beams = beams,
                      .capacity = a.room,
                      .room = a.room - 1,
                      .filled = filled});
        std::copy(totals.begin(), totals.end(), a.totals);
    }

    BeamSearchSteps& a;
    DecoderStep step;
    const int64_t batch, beams, width, dim;
    std::vector<int32_t> slots, longer;  // histories before and after the step
    std::vector<float> x, before, totals;
    std::vector<int64_t> latest, picked, parents, added;
    std::vector<uint8_t> ends, empty;
};

}  // namespace

void beam_search_steps(BeamSearchSteps& a) { a.steps_made = RunningSearch(a).run(); }

}  // namespace fairbeam

FAIRBEAM_EXPORT(beam_search_steps, BeamSearchSteps)

#endif
