namespace PeftServer.Engine.Adapters.AdapterHub.Composition;

/// <summary>
/// How several adapters of one model work together in every sequence, by the library's names. Blocks nest as the library lets them:
/// stacks hold anything; a fusion holds adapters and stacks; splits and averages hold all but fusions. What the library calls Parallel and
/// BatchSplit is a layout of a batch here: each sequence has its own adapter (<see cref="Models.ForwardBatch.Mixed"/>).
/// </summary>
public abstract record AdapterBlock
{
    private protected AdapterBlock(IReadOnlyList<AdapterBlock> blocks) => Blocks = blocks;

    /// <summary>The blocks inside.</summary>
    public IReadOnlyList<AdapterBlock> Blocks { get; }

    /// <summary>All adapters inside, the first first.</summary>
    public virtual IEnumerable<HubAdapter> Adapters => Blocks.SelectMany(block => block.Adapters);

    public static implicit operator AdapterBlock(HubAdapter adapter) => new SingleBlock(adapter);

    /// <summary>Throws where the library does not let blocks nest like this.</summary>
    private protected static IReadOnlyList<AdapterBlock> Checked(IReadOnlyList<AdapterBlock> blocks, string name, Func<AdapterBlock, bool> takes)
    {
        if (blocks.Count == 0)
        {
            throw new ArgumentException($"{name} needs adapters.", nameof(blocks));
        }

        return blocks.FirstOrDefault(block => !takes(block)) is { } wrong ? throw new ArgumentException($"{name} cannot hold {wrong.GetType().Name}.", nameof(blocks)) : blocks;
    }
}

/// <summary>One adapter.</summary>
public sealed record SingleBlock(HubAdapter Adapter) : AdapterBlock([])
{
    public override IEnumerable<HubAdapter> Adapters => [Adapter];
}

/// <summary>One after another: each takes what the one before gives. LoRAs too are chained, and only the last one's result is added.</summary>
public sealed record StackBlock(params IReadOnlyList<AdapterBlock> Stacked) : AdapterBlock(Checked(Stacked, "A stack", block => block is not StackBlock));

/// <summary>
/// Every adapter for a span of each sequence's tokens, the spans <paramref name="Splits"/> long. For adapters in the residual stream only.
/// </summary>
public sealed record SplitBlock(IReadOnlyList<AdapterBlock> Parts, IReadOnlyList<int> Splits)
    : AdapterBlock(Checked(Parts, "A split", block => block is not FuseBlock))
{
    public IReadOnlyList<int> Splits { get; } = Splits.Count == Parts.Count && Splits.All(split => split > 0)
        ? Splits : throw new ArgumentException("A split needs one length above 0 for each part.", nameof(Splits));
}

/// <summary>
/// The weighted mean of what adapters give. As the library has it, the weighted sum is divided by the number of adapters once more.
/// </summary>
public sealed record AverageBlock(IReadOnlyList<AdapterBlock> Parts, IReadOnlyList<double> Weights)
    : AdapterBlock(Checked(Parts, "An average", block => block is not (FuseBlock or AverageBlock)))
{
    public IReadOnlyList<double> Weights { get; } = Weights.Count == Parts.Count
        ? Weights : throw new ArgumentException("An average needs one weight for each part.", nameof(Weights));
}

/// <summary>
/// <see href="https://arxiv.org/abs/2005.00247">AdapterFusion</see>: in each place attention decides for every token how much of each
/// adapter it takes. For adapters in the residual stream only.
/// </summary>
public sealed record FuseBlock(IReadOnlyList<AdapterBlock> Parts, FusionConfig Config)
    : AdapterBlock(Checked(Parts, "A fusion", block => block is SingleBlock or StackBlock))
{
    /// <summary>The fusion's name in files: its adapters' names, a stack by its last.</summary>
    public string Name => string.Join(",", Blocks.Select(block => block.Adapters.Last().Name));
}
