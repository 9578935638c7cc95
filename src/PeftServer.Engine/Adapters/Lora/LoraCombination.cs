using PeftServer.Engine.Native;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>How LoRA adapters are put together into one: PEFT's <c>add_weighted_adapter</c>.</summary>
public enum LoraCombinationType
{
    /// <summary>The weighted sum of the matrices A, and that of the matrices B; ranks must agree.</summary>
    Linear,

    /// <summary>All ranks beside each other: exactly the weighted sum of the changes.</summary>
    Cat,

    /// <summary>The weighted sum of the changes, decomposed.</summary>
    Svd,

    /// <summary>As <see cref="Linear"/>, of the largest entries, where most agree in sign: <see href="https://arxiv.org/abs/2306.01708"/>.</summary>
    Ties,

    /// <summary><see cref="Ties"/> of the changes, decomposed.</summary>
    TiesSvd,

    /// <summary>As <see cref="Linear"/>, of entries drawn at random and scaled up: <see href="https://arxiv.org/abs/2311.03099"/>.</summary>
    DareLinear,

    /// <summary>Both: entries drawn at random, where most agree in sign.</summary>
    DareTies,

    /// <summary><see cref="DareLinear"/> of the changes, decomposed.</summary>
    DareLinearSvd,

    /// <summary><see cref="DareTies"/> of the changes, decomposed.</summary>
    DareTiesSvd,

    /// <summary>As <see cref="Linear"/>, of the largest entries.</summary>
    MagnitudePrune,

    /// <summary><see cref="MagnitudePrune"/> of the changes, decomposed.</summary>
    MagnitudePruneSvd,
}

/// <summary>Settings of a combination.</summary>
/// <param name="Type">How adapters are put together.</param>
/// <param name="Density">Share of the entries that is kept, from 0 to 1, where entries are chosen.</param>
/// <param name="SvdRank">Rank of a decomposed result; absent: the largest among the adapters.</param>
/// <param name="SvdClamp">Entries of a decomposed result are cut at this quantile of theirs.</param>
/// <param name="CountsSigns">The sign that most have; false: the sign of the sum.</param>
/// <param name="Seed">Of what is drawn: as torch.manual_seed before PEFT's call.</param>
public sealed record LoraCombination(
    LoraCombinationType Type, double Density = 1, int? SvdRank = null, double? SvdClamp = null, bool CountsSigns = false, ulong Seed = 0)
{
    private bool IsDecomposed => Type is LoraCombinationType.Svd or LoraCombinationType.TiesSvd or LoraCombinationType.DareLinearSvd
        or LoraCombinationType.DareTiesSvd or LoraCombinationType.MagnitudePruneSvd;

    /// <summary>
    /// One adapter on the model of <paramref name="adapters"/> that does what they do together, each by its weight. Throws
    /// <see cref="AdapterException"/> where they do not go together. The caller disposes of it.
    /// </summary>
    public Adapter Combine(IReadOnlyList<(Adapter Adapter, double Weight)> adapters)
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        using var generator = new Generator(Seed);
        var sources = adapters.Select(entry => Checked(entry.Adapter)).ToList();
        var configs = sources.ConvertAll(source => (LoraConfig)source.Config);
        var ranks = sources.ConvertAll(source => source.Parts.Max(entry => ((LoraProjection)entry.Part).Rank));
        if (Type is not LoraCombinationType.Cat && !IsDecomposed && ranks.Distinct().Count() > 1)
        {
            throw new AdapterException("combination_type", $"{Type} needs adapters of one rank; these have {string.Join(", ", ranks)}. Use cat or svd.");
        }

        var rank = Type is LoraCombinationType.Cat ? ranks.Sum() : IsDecomposed ? SvdRank ?? ranks.Max() : ranks[0];
        var names = configs.SelectMany(config => config.TargetModules!.Names ?? []).Distinct().ToArray();
        var combined = new LoraAdapter(
            configs[0] with
            {
                R = rank,
                LoraAlpha = rank,
                UseRslora = false,
                InitLoraWeights = LoraInit.Default,
                TargetModules = configs.TrueForAll(config => config.TargetModules!.Names is not null) ? ModuleSelector.Of(names) : configs[0].TargetModules,
                RankPattern = new Dictionary<string, int>(),
                AlphaPattern = new Dictionary<string, double>(),
            }, sources[0].Model);
        SkipStarts(combined, configs[0].InitLoraWeights, generator);
        foreach (var (site, part) in combined.Parts)
        {
            var given = sources.SelectMany((source, i) => source.Parts.Where(entry => entry.Site == site).Select(entry => ((LoraProjection)entry.Part, adapters[i].Weight))).ToList();
            var (a, b) = Type is LoraCombinationType.Cat ? Beside(given) : IsDecomposed ? Decomposed(given, rank, generator) : Mixed(given, generator);
            ((LoraProjection)part).Set(Padded(a, 0, rank), Padded(b, 1, rank));
        }

        return combined;
    }

    /// <summary>
    /// PEFT draws a start for every module, which it then replaces: behind that, a seed keeps the entries that torch.manual_seed keeps there.
    /// </summary>
    private static void SkipStarts(Adapter combined, LoraInit init, Generator generator)
    {
        foreach (var part in combined.Parts.Select(entry => (LoraProjection)entry.Part))
        {
            var (a, b) = (part.State.Single(entry => entry.Name == "lora_A.weight").Weight.ElementCount, part.State.Single(entry => entry.Name == "lora_B.weight").Weight.ElementCount);
            rand(init == LoraInit.Random ? a + b : a + b + a, generator: generator);
        }
    }

    private static LoraAdapter Checked(Adapter adapter) => adapter is LoraAdapter lora && lora.Parts.All(entry => entry.Part is LoraProjection { IsPlain: true })
        ? lora
        : throw new AdapterException("adapters", "Only plain LoRA adapters on linear layers can be combined: no variants, biases, embeddings or modules that train in full.");

    private static (Tensor A, Tensor B) Beside(List<(LoraProjection Part, double Weight)> given) => (
        cat([.. given.Select(entry => entry.Part.A.Times(entry.Weight * entry.Part.Scale))], 0), cat([.. given.Select(entry => entry.Part.B)], 1));

    /// <summary>A and B by themselves, each with the root of a weight, so that products have the weight.</summary>
    private (Tensor A, Tensor B) Mixed(List<(LoraProjection Part, double Weight)> given, Generator generator)
    {
        var weights = given.ConvertAll(entry => entry.Weight * entry.Part.Scale);
        var roots = weights.ConvertAll(weight => Math.Sqrt(Math.Abs(weight)));
        return (
            Mix(given.ConvertAll(entry => entry.Part.A), [.. weights.Zip(roots, (weight, root) => root * (weight < 0 ? -1 : 1))], generator),
            Mix(given.ConvertAll(entry => entry.Part.B), roots, generator));
    }

    private (Tensor A, Tensor B) Decomposed(List<(LoraProjection Part, double Weight)> given, int rank, Generator generator)
    {
        var change = Mix(given.ConvertAll(entry => entry.Part.B.mm(entry.Part.A).Times(entry.Part.Scale)), given.ConvertAll(entry => entry.Weight), generator);
        var (u, s, vt) = LowRank.Svd(change);
        var kept = Math.Min(rank, s.size(0));
        var (a, b) = (vt.narrow(0, 0, kept), LowRank.ScaleColumns(u.narrow(1, 0, kept), s.narrow(0, 0, kept)));
        if (SvdClamp is { } quantile)
        {
            var limit = cat([a.flatten(), b.flatten()], 0).quantile(tensor((float)quantile), dim: 0).item<float>();
            (a, b) = (a.AtLeast(-limit).AtMost(limit), b.AtLeast(-limit).AtMost(limit));
        }

        return (a, b);
    }

    /// <summary>The weighted sum of what is chosen of each.</summary>
    private Tensor Mix(List<Tensor> tensors, List<double> weights, Generator generator)
    {
        var chosen = stack([.. tensors.Select(each => Choose(each, generator))]); // [adapters, …]
        var factors = tensor(weights.ConvertAll(weight => (float)weight).ToArray(), device: chosen.device).view([weights.Count, .. Enumerable.Repeat(1L, (int)chosen.dim() - 1)]);
        var weighted = chosen.mul(factors);
        if (Type is not (LoraCombinationType.Ties or LoraCombinationType.TiesSvd or LoraCombinationType.DareTies or LoraCombinationType.DareTiesSvd))
        {
            return weighted.sum([0]);
        }

        // Where most agree in sign, the mean of those that do.
        var signs = chosen.sign();
        var total = (CountsSigns ? signs : chosen).sum([0]);
        var majority = where(total.ge(TensorArithmetic.Zero), ones_like(total), ones_like(total).neg());
        var agrees = signs.eq(majority).to(chosen.dtype);
        return weighted.mul(agrees).sum([0]).div(agrees.sum([0]).AtLeast(1));
    }

    private Tensor Choose(Tensor tensor, Generator generator)
    {
        if (Density >= 1 || Type is LoraCombinationType.Linear or LoraCombinationType.Svd)
        {
            return tensor;
        }

        if (Type is LoraCombinationType.DareLinear or LoraCombinationType.DareTies or LoraCombinationType.DareLinearSvd or LoraCombinationType.DareTiesSvd)
        {
            using var share = Density.ToScalar();
            return tensor.mul(rand(tensor.shape, generator: generator).lt(share).to(tensor.dtype, tensor.device)).Times(1 / Density);
        }

        var largest = tensor.abs().flatten().topk((int)(Density * tensor.numel())).indexes;
        var mask = zeros_like(tensor).flatten().index_fill(0, largest, TensorArithmetic.One);
        return tensor.mul(mask.view(tensor.shape));
    }

    private static Tensor Padded(Tensor matrix, int dimension, int size)
    {
        var missing = size - matrix.size(dimension);
        return missing == 0 ? matrix : F.pad(matrix, dimension == 0 ? [0, 0, 0, missing] : [0, missing]);
    }
}
