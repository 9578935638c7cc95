using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Goldens.Tests;

/// <summary>The checks that every causal language model shares, with and without an adapter.</summary>
internal sealed class CausalCase : IModelCase
{
    private readonly Golden _golden;
    private readonly CausalLanguageModel _model;
    private readonly PeftDraws _draws;

    private CausalCase(Golden golden, CausalLanguageModel model) => (_golden, _model, _draws) = (golden, model, new PeftDraws(golden));

    /// <summary>Fails, saying so, for a kind of case that nothing here computes.</summary>
    public static IModelCase Of(Golden golden, PretrainedModel model, bool keepsPadding = false)
    {
        var kind = golden.Meta.GetProperty("kind").GetString();
        return (kind, model) switch
        {
            ("causal", CausalLanguageModel causal) => new CausalCase(golden, causal) { KeepsPadding = keepsPadding },
            ("seq2seq", Seq2SeqLanguageModel seq2seq) => new Seq2SeqCase(golden, seq2seq),
            ("seqcls" or "tokcls" or "mlm" or "qa" or "features", ClassificationModel classifier) => new ClassificationCase(golden, classifier) { KeepsPadding = keepsPadding },
            _ => throw new NotSupportedException($"Cases of kind '{kind}' are not supported yet."),
        };
    }

    /// <summary>
    /// Padding goes through the model too, as it does in PEFT, where a method looks at all tokens of a batch together (Lily's mean of
    /// routes, VeLoRA's mean direction), or draws for each of them (PVeRA).
    /// </summary>
    public bool KeepsPadding { get; init; }

    /// <summary>Logits at every token against the tensor <paramref name="name"/>; the loss too where the case has one for it.</summary>
    public void CheckForward(string name, IReadOnlyList<Adapter> adapters, double tolerance = 1e-4)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        var (rows, places) = _golden.Rows();
        using var batch = Pack(rows, adapters);

        var logits = _model.Logits(_model.Hidden(batch), batch);
        if (KeepsPadding)
        {
            logits = logits.index_select(0, tensor(places.SelectMany(at => at).ToArray()));
        }

        Golden.ShouldAgree(name, logits, _golden[name].flatten(0, 1).index_select(0, tensor(WithPrompt(places, batch))), tolerance);
        if (name == "logits" && _golden.Has("loss"))
        {
            Golden.ShouldAgree("loss", Loss(logits, places).unsqueeze(0), _golden["loss"], tolerance);
        }
    }

    private ForwardBatch Pack(List<int[]> rows, IReadOnlyList<Adapter> adapters, Generator? draws = null)
    {
        var tasks = _golden.Has("task_ids") ? _golden["task_ids"].data<long>().Select(task => (int)task).ToArray() : [];
        return KeepsPadding ? ForwardBatch.Padded(rows, 0, adapters, CPU, draws) : ForwardBatch.Packed(rows, adapters, CPU, draws, tasks);
    }

    /// <summary>Places of the tokens in the reference's logits, which has the rows of a prompt before those of each sequence.</summary>
    private long[] WithPrompt(List<long[]> places, ForwardBatch batch)
    {
        var (width, prompt) = (_golden["input_ids"].size(1), batch.PromptRows[0]);
        return [.. places.SelectMany((at, row) => Enumerable.Range(0, prompt).Select(i => (row * (width + prompt)) + i)
            .Concat(at.Select(place => place + ((row + 1) * prompt))))];
    }

    /// <summary>
    /// Mean cross-entropy of the next labels, with gradients; <paramref name="places"/> are the tokens' places in the padded batch.
    /// </summary>
    public Tensor Loss(Tensor logits, List<long[]> places)
    {
        var labels = _golden["labels"].data<long>().ToArray();
        var (sources, targets) = (new List<long>(), new List<long>());
        var token = 0;
        var ahead = _model is BartForCausalLM ? 0 : 1; // transformers holds BART's decoder to the label of the very token
        foreach (var at in places)
        {
            for (var i = 0; i < at.Length; i++, token++)
            {
                if (i + ahead < at.Length && labels[at[i + ahead]] != -100)
                {
                    sources.Add(token);
                    targets.Add(labels[at[i + ahead]]);
                }
            }
        }

        return F.cross_entropy(logits.index_select(0, tensor(sources.ToArray())).to(ScalarType.Float32), tensor(targets.ToArray()));
    }

    /// <summary>One training forward: the loss under <paramref name="adapters"/>, with gradients.</summary>
    public Tensor TrainingLoss(IReadOnlyList<Adapter> adapters)
    {
        var (rows, places) = _golden.Rows();
        var draws = _draws.Next(adapters);
        using var batch = Pack(rows, adapters, draws);
        var logits = _model.Logits(_model.Hidden(batch), batch);
        var own = tensor(KeepsPadding ? [.. places.SelectMany(at => at)] : batch.PlacesOf([.. Enumerable.Range(0, rows.Sum(row => row.Length)).Select(i => (long)i)]));
        var loss = Loss(logits.index_select(0, own), places);
        if (adapters is [var one] && one.SideStates(batch) is var (states, weight))
        {
            loss = loss.Plus(Loss(_model.Logits(states, batch).index_select(0, own), places).Times(weight));
        }

        return adapters.SelectMany(adapter => adapter.PromptTargets).ToList() is { Count: > 0 } prompt ? WithPromptTargets(loss, logits, batch, prompt) : loss;
    }

    /// <summary>The mean over the rows' own labels and those of the prompt before each of them.</summary>
    private Tensor WithPromptTargets(Tensor loss, Tensor logits, ForwardBatch batch, List<Engine.Adapters.Prompts.PromptTarget> prompt)
    {
        var labels = _golden["labels"];
        var own = labels.narrow(1, 1, labels.size(1) - 1).data<long>().Count(label => label != -100);
        var sources = batch.Starts.SkipLast(1).SelectMany(start => prompt.Select(target => (long)start + target.Source)).ToArray();
        var targets = batch.Starts.SkipLast(1).SelectMany(_ => prompt.Select(target => (long)target.Token)).ToArray();
        var shares = tensor(batch.Starts.SkipLast(1).SelectMany(_ => prompt.Select(target => (float)target.Weight)).ToArray());
        var sum = F.cross_entropy(logits.index_select(0, tensor(sources)), tensor(targets), reduction: nn.Reduction.None).mul(shares).sum();
        return loss.Times(own).Plus(sum).Times(1.0 / (own + targets.Length));
    }

    /// <summary>Eight greedy tokens with a cache, end-of-sequence (id 1) left out, for all prompts in one batch.</summary>
    public void CheckGreedy(IReadOnlyList<Adapter> adapters)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        if (!_golden.Has("greedy_ids"))
        {
            _golden.Has("prompt_ids").ShouldBeFalse();
            return; // PEFT cannot generate with this method
        }

        var (prompts, at) = _golden.Rows("prompt_ids", "prompt_mask");
        var caches = prompts.ConvertAll(_ => new KeyValueCache(_model.LayerCount));
        var (next, generated) = (prompts, prompts.ConvertAll(_ => new List<int>()));
        for (var step = 0; step < 8; step++)
        {
            using var batch = ForwardBatch.Cached([.. next.Select((tokens, i) => new CachedSequence(tokens, caches[i], adapters))], CPU);
            if (adapters.Any(adapter => adapter.PromptRows > 0) || _model is BartForCausalLM)
            {
                SkipPadding(batch, at);
            }

            var lasts = batch.Starts.Skip(1).Select(end => end - 1L).ToArray();
            var logits = _model.Logits(_model.Hidden(batch).index_select(0, tensor(lasts)), batch);
            logits.narrow(1, 1, 1).fill_(Engine.Native.TensorArithmetic.NegativeInfinity);
            var chosen = logits.argmax(-1).data<long>().ToArray();
            for (var i = 0; i < caches.Count; i++)
            {
                caches[i].Advance(next[i].Length);
                generated[i].Add((int)chosen[i]);
            }

            next = [.. chosen.Select(token => new[] { (int)token })];
            if (adapters.Any(adapter => adapter.ReadsWholeSequences))
            {
                caches.ForEach(cache => cache.Dispose());
                caches = prompts.ConvertAll(_ => new KeyValueCache(_model.LayerCount));
                next = [.. prompts.Select((prompt, i) => prompt.Concat(generated[i]).ToArray())];
            }
        }

        caches.ForEach(cache => cache.Dispose());
        var width = (int)_golden["prompt_ids"].size(1);
        var expected = _golden["greedy_ids"];
        for (var i = 0; i < prompts.Count; i++)
        {
            var row = expected.select(0, i).data<long>().ToArray();
            generated[i].Select(token => (long)token).ShouldBe(row[width..], $"greedy tokens of row {i}");
        }
    }

    /// <summary>PEFT numbers the padding that stands between a prompt and its sequence, and BART's decoder in transformers all of it.</summary>
    private void SkipPadding(ForwardBatch batch, List<long[]> at)
    {
        var width = _golden["prompt_ids"].size(1);
        for (var i = 0; i < batch.SequenceCount; i++)
        {
            var first = batch.Starts[i] + batch.PromptRows[i];
            using var gap = (at[i][0] % width).ToScalar();
            batch.Positions.narrow(0, first, batch.Starts[i + 1] - first).add_(gap);
        }
    }
}
