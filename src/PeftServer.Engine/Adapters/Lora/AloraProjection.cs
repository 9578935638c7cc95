using System.Runtime.CompilerServices;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>aLoRA: LoRA on the tokens from the last invocation in a prompt on; what stands before keeps the base's keys and values.</summary>
internal sealed class AloraProjection(LoraConfig config, Projection site, Invocations invocations) : LoraProjection(config, site)
{
    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var delta = base.Delta(x, call); // [n, out]
        var active = invocations.Active(call.Batch).AsSpan(call.Run.Start, call.Run.Count);
        return active.Contains(0f)
            ? delta.mul(tensor(active.ToArray(), device: x.device).to(x.dtype).unsqueeze(1)).MoveToOuterDisposeScope()
            : delta.MoveToOuterDisposeScope();
    }

    public override Tensor Merge(Site site, Tensor weight) =>
        throw new NotSupportedException($"alora_invocation_tokens: an adapter that is off for some tokens cannot be merged into the weight of {site.Path}. Serve it unmerged.");
}

/// <summary>Where sequences invoke an aLoRA adapter. A prompt decides for all that is generated after it.</summary>
internal sealed class Invocations(IReadOnlyList<int> invocation)
{
    private readonly ConditionalWeakTable<ForwardBatch, float[]> _batches = [];
    private readonly ConditionalWeakTable<KeyValueCache, object> _invoked = [];

    /// <summary>1 for each token of the batch at which the adapter is on, 0 for the others.</summary>
    public float[] Active(ForwardBatch batch) => _batches.GetValue(batch, Find);

    private float[] Find(ForwardBatch batch)
    {
        var active = new float[batch.TokenCount];
        for (var i = 0; i < batch.SequenceCount; i++)
        {
            var cache = i < batch.Caches.Count ? batch.Caches[i] : null;
            if (From(batch.Sequences[i], cache) is { } from)
            {
                active.AsSpan(batch.Starts[i] + batch.PromptRows[i] + from, batch.Sequences[i].Count - from).Fill(1);
            }
        }

        return active;
    }

    private int? From(IReadOnlyList<int> tokens, KeyValueCache? cache)
    {
        if (cache is { Length: > 0 } && _invoked.TryGetValue(cache, out _))
        {
            return 0;
        }

        // One token after a prompt is the model's own word, and does not invoke.
        if (cache is { Length: > 0 } && tokens.Count == 1)
        {
            return null;
        }

        var last = Enumerable.Range(0, Math.Max(0, tokens.Count - invocation.Count + 1)).Reverse()
            .Where(start => invocation.Select((id, i) => tokens[start + i] == id).All(same => same))
            .Select(start => (int?)start).FirstOrDefault();
        if (last is not null && cache is not null)
        {
            _invoked.AddOrUpdate(cache, cache);
        }

        return last;
    }
}
