using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdapterHub.Composition;

/// <summary>
/// Adapters of one model at work together as a block says. What trains is what the library trains: the layers of a fusion where there is
/// one, else the adapters, and the head of the last of them. The adapters stay their owner's.
/// </summary>
public sealed class ComposedAdapter : Adapter
{
    private readonly AdapterBlock _block;
    private readonly List<(ResidualSite Site, ResidualPart Part)> _residuals = [];
    private readonly List<(string Key, ResidualSite Site, FusedResidual Layer)> _fusions = [];
    private readonly List<HiddenSite> _hidden = [];
    private readonly List<Site> _sites = [];

    /// <summary>Throws <see cref="AdapterException"/> for adapters that cannot be composed like this.</summary>
    public ComposedAdapter(AdapterBlock block)
        : base(block.Adapters.First().Config, block.Adapters.First().Model)
    {
        _block = block;
        if (block.Adapters.Any(adapter => !ReferenceEquals(adapter.Model, Model)))
        {
            throw new AdapterException("adapters", "must be on the same model.");
        }

        AttachStream();
        AttachSites();
        Head?.Share(this);
    }

    /// <summary>The head that trains along: the last adapter's.</summary>
    public HubHead? Head => _block.Adapters.Last().Head;

    /// <summary>The fusion's own block; null where none is fused.</summary>
    internal FuseBlock? Fusion => Find(_block);

    /// <summary>Weights of the fusion's layers.</summary>
    internal IEnumerable<(string Key, Weight Weight)> FusionState =>
        _fusions.SelectMany(fusion => fusion.Layer.State.Select(state => ($"{fusion.Key}.{state.Name}", state.Weight)));

    protected override IEnumerable<(string Key, Weight Weight)> Shared =>
        (_fusions.Count > 0 ? FusionState : _block.Adapters.Distinct().SelectMany(adapter => adapter.OwnState)).Concat(Head?.State ?? []);

    public override long TotalCount => Model.ParameterCount + _block.Adapters.Distinct().Sum(adapter => adapter.OwnState.Sum(entry => entry.Weight.ElementCount))
        + FusionState.Sum(entry => entry.Weight.ElementCount);

    public override AttentionPrefix? CreatePrefix() => Single(adapter => adapter.CreatePrefix());

    public override AttentionPrefix? CreateEncoderPrefix() => Single(adapter => adapter.CreateEncoderPrefix());

    public override AttentionPrefix? CreateCrossPrefix() => Single(adapter => adapter.CreateCrossPrefix());

    public override bool ReadsWholeSequences => _block.Adapters.Any(adapter => adapter.ReadsWholeSequences);

    public override void MergeAndUnload() => throw new NotSupportedException("Composed adapters cannot be merged. Average their weights into one, and merge that.");

    /// <summary>0.01·Σ‖I − V‖² over the layers of a fusion, which its training adds to the loss; null where it does not.</summary>
    public Tensor? RegularizationLoss()
    {
        if (Fusion is not { Config: { Regularization: true, Value: true } })
        {
            return null;
        }

        using var scope = NewDisposeScope();
        var losses = _fusions.Select(fusion => eye(Model.HiddenSize, device: Model.Device).Minus(fusion.Layer.ValueWeight!.Value).square().sum().Times(0.01)).ToArray();
        return stack(losses).sum().MoveToOuterDisposeScope();
    }

    /// <summary>Calls <paramref name="read"/> in every forward with the place and the shares of each token, [n, adapters]; null: no more.</summary>
    public void ReadFusion(Action<ResidualSite, Tensor>? read) =>
        _fusions.ForEach(fusion => fusion.Layer.Shares = read is null ? null : shares => read(fusion.Site, shares));

    protected override IEnumerable<Weight> Owned => FusionState.Select(entry => entry.Weight);

    /// <summary>Draws the fusion's layers; the adapters are as they are.</summary>
    protected override void InitializeShared(Generator generator) => _fusions.ForEach(fusion => fusion.Layer.Initialize(generator, Model.Device));

    protected internal override void Settle()
    {
        foreach (var adapter in _block.Adapters)
        {
            adapter.Settle();
        }
    }

    protected override void Detach()
    {
        _residuals.ForEach(entry => entry.Site.Detach(this));
        _hidden.ForEach(site => site.Detach(this));
        _sites.ForEach(site => site.Detach(this));
        Head?.Release(this);
    }

    private void AttachStream()
    {
        foreach (var site in Model.Modules().OfType<ResidualSite>())
        {
            if (Build(site, _block) is { } part)
            {
                site.Attach(this, part);
                _residuals.Add((site, part));
            }
        }

        // Only the first adapter's interventions are at work, as in the library.
        foreach (var site in Model.Modules().OfType<HiddenSite>())
        {
            if (site.PartOf(_block.Adapters.First()) is { } part)
            {
                site.Attach(this, part);
                _hidden.Add(site);
            }
        }
    }

    private void AttachSites()
    {
        foreach (var site in Model.Sites())
        {
            if (BuildProjection(site, _block) is { } part)
            {
                site.Attach(this, part);
                _sites.Add(site);
            }

            foreach (var plain in site.PartsOf(_block.Adapters.First()).Where(part => part is not (HubProjectionPart or TrainableCopy)))
            {
                site.Attach(this, plain);
                _sites.Add(site);
            }
        }
    }

    private ResidualPart? Build(ResidualSite site, AdapterBlock block)
    {
        if (block is SingleBlock { Adapter: var adapter })
        {
            return site.PartOf(adapter);
        }

        var parts = block.Blocks.Select(inner => Build(site, inner)).ToList();
        var found = parts.OfType<ResidualPart>().ToList();
        if (found.Count == 0)
        {
            return null;
        }

        if (block is StackBlock)
        {
            return new StackedResidual(found);
        }

        return found.Count < parts.Count
            ? throw new AdapterException("adapters", $"{block.GetType().Name} needs all of them at {site.Path}.")
            : block switch
            {
                AverageBlock average => new AveragedResidual(found, average.Weights),
                SplitBlock split => new SplitResidual(found, split.Splits),
                FuseBlock fuse => Fuse(site, fuse, found),
                _ => throw new AdapterException("adapters", $"{block.GetType().Name} is no composition."),
            };
    }

    private FusedResidual Fuse(ResidualSite site, FuseBlock block, List<ResidualPart> parts)
    {
        var layer = new FusedResidual(parts, block.Config, Model.HiddenSize, Model.Config.Number("attention_probs_dropout_prob", 0));
        var key = $"{HubArchitecture.PlaceOf(site)}.adapter_fusion_layer.{block.Name}";
        foreach (var (name, weight) in layer.State)
        {
            weight.Path = $"{key}.{name}";
        }

        _fusions.Add((key, site, layer));
        return layer;
    }

    private static HubProjectionPart? BuildProjection(Site site, AdapterBlock block)
    {
        if (block is SingleBlock { Adapter: var adapter })
        {
            return site.PartsOf(adapter).OfType<HubProjectionPart>().FirstOrDefault();
        }

        var found = block.Blocks.Select(inner => BuildProjection(site, inner)).OfType<HubProjectionPart>().ToList();
        return (found.Count, block) switch
        {
            (0, _) => null,
            (_, StackBlock) => new StackedProjection(found),
            (_, AverageBlock average) when found.Count == block.Blocks.Count => new AveragedProjection(found, average.Weights),
            _ => throw new AdapterException("adapters", $"{block.GetType().Name} is for adapters in the residual stream; {site.Path} has a LoRA."),
        };
    }

    private AttentionPrefix? Single(Func<HubAdapter, AttentionPrefix?> create)
    {
        var made = _block.Adapters.Distinct().Select(create).OfType<AttentionPrefix>().ToList();
        if (made is not ([] or [not GatedPrefix]))
        {
            made.ForEach(prefix => prefix.Dispose());
            throw new NotSupportedException("Prefixes of several adapters, or gated ones, cannot be composed.");
        }

        return made is [var one] ? one : null;
    }

    private static FuseBlock? Find(AdapterBlock block) => block as FuseBlock ?? block.Blocks.Select(Find).FirstOrDefault(found => found is not null);
}
