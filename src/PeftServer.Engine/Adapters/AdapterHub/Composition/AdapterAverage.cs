using System.Text.Json.Nodes;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Adapters.AdapterHub.Composition;

/// <summary>How weights of several adapters become one adapter's, by the library's names.</summary>
public enum CombineStrategy
{
    /// <summary>Each weight by itself: Σ wᵢ·Wᵢ.</summary>
    Linear,

    /// <summary>The same, but a negative weight changes the sign of LoRA's B alone.</summary>
    LoraLinearOnlyNegateB,

    /// <summary>The products BA are added up, and cut into A and B anew by a singular value decomposition.</summary>
    LoraDeltaWSvd,
}

/// <summary>Averages of weights: a new adapter from several of one kind.</summary>
public static class AdapterAverage
{
    /// <summary>
    /// The adapter <paramref name="name"/> from <paramref name="adapters"/>, which must be of one config. Weights are brought to a sum of 1
    /// unless <paramref name="normalizes"/> is false. Throws <see cref="AdapterException"/> where the strategy does not suit the method.
    /// </summary>
    public static HubAdapter Create(
        string name, IReadOnlyList<HubAdapter> adapters, IReadOnlyList<double> weights, CombineStrategy strategy = CombineStrategy.Linear, int? svdRank = null, bool normalizes = true)
    {
        if (adapters.Count == 0 || adapters.Count != weights.Count)
        {
            throw new ArgumentException("Each adapter needs a weight.", nameof(weights));
        }

        var scaled = normalizes ? [.. weights.Select(weight => weight / weights.Sum())] : weights;
        var config = (AdapterHubConfig)adapters[0].Config;
        var fields = ((JsonObject)config.Config!).DeepClone().AsObject();
        if (strategy is CombineStrategy.LoraDeltaWSvd)
        {
            fields["r"] = svdRank ?? throw new AdapterException("svd_rank", "is needed with lora_delta_w_svd.");
        }

        var average = new HubAdapter(config with { Name = name, Config = fields }, adapters[0].Model);
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        try
        {
            if (strategy is CombineStrategy.LoraDeltaWSvd)
            {
                Decompose(average, adapters, scaled, svdRank!.Value);
            }
            else
            {
                AddUp(average, adapters, scaled, strategy);
            }

            using (var generator = new Generator(0))
            {
                average.Head?.Initialize(generator, average.Model.Device);
            }

            average.Prepare();
            return average;
        }
        catch
        {
            average.Dispose();
            throw;
        }
    }

    private static void AddUp(HubAdapter average, IReadOnlyList<HubAdapter> adapters, IReadOnlyList<double> weights, CombineStrategy strategy)
    {
        var states = adapters.Select(adapter => adapter.OwnState.Select(entry => entry.Weight).ToList()).ToList();
        var target = average.OwnState.ToList();
        if (states.Exists(state => state.Count != target.Count))
        {
            throw new AdapterException("adapters", "must have one config to be averaged.");
        }

        for (var i = 0; i < target.Count; i++)
        {
            var isA = target[i].Key.EndsWith(".lora_A", StringComparison.Ordinal);
            if (strategy is CombineStrategy.LoraLinearOnlyNegateB && !isA && !target[i].Key.EndsWith(".lora_B", StringComparison.Ordinal))
            {
                throw new AdapterException("combine_strategy", $"lora_linear_only_negate_b is for LoRA alone, not for {target[i].Key}.");
            }

            var sum = zeros([.. target[i].Weight.Shape], device: average.Model.Device);
            for (var j = 0; j < adapters.Count; j++)
            {
                sum.Add(states[j][i].Value, strategy is CombineStrategy.LoraLinearOnlyNegateB && isA ? Math.Abs(weights[j]) : weights[j]);
            }

            target[i].Weight.Set(sum);
        }
    }

    /// <summary>The new adapter's alpha / r counts with its new r, as the library has it.</summary>
    private static void Decompose(HubAdapter average, IReadOnlyList<HubAdapter> adapters, IReadOnlyList<double> weights, int rank)
    {
        foreach (var (site, part) in average.SiteParts)
        {
            var a = (part as HubLora)?.A;
            if (a is null || adapters.Select(adapter => adapter.SiteParts.FirstOrDefault(entry => entry.Site == site).Part as HubLora).ToList() is not { } parts || parts.Contains(null))
            {
                throw new AdapterException("combine_strategy", $"lora_delta_w_svd is for LoRA alone, not for what stands at {site.Path}.");
            }

            var product = parts.Select((lora, i) => lora!.Product().Times(weights[i])).Aggregate((sum, next) => sum.Plus(next)); // [out, in]
            var (u, s, v) = linalg.svd(product, fullMatrices: false);
            a.Set(v.narrow(0, 0, rank).contiguous());
            ((HubLora)part).B!.Set(u.narrow(1, 0, rank).mul(s.narrow(0, 0, rank)).contiguous());
        }
    }
}
