using System.Text.Json.Nodes;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>
/// An adapter of the <c>adapters</c> library on one model: parts in the residual stream and at sites, weights that they share, and the
/// head that trains with them. Its keys are paths of the model with the adapter's name in them.
/// </summary>
public sealed class HubAdapter : Adapter
{
    private readonly List<(string Key, StreamPart Part, Action Detach)> _streamParts = [];
    private readonly List<(string Key, Site Site, SiteAdapter Part)> _siteParts = [];
    private readonly List<HubPrefix> _prefixes = [];
    private readonly List<(string Key, Weight Weight, Action<Generator, Device> Initialize)> _shared = [];

    internal HubAdapter(AdapterHubConfig config, PretrainedModel model, JsonObject? headConfig = null)
        : base(config, model)
    {
        Architecture = HubArchitecture.Of(model);
        Methods = HubMethod.Read((JsonObject)config.Config!);
        foreach (var method in Methods)
        {
            method.Attach(this);
        }

        if (_streamParts.Count + _siteParts.Count + _prefixes.Count == 0)
        {
            throw new AdapterException("config", $"puts nothing onto {model.Config.ModelType}: every layer is left out, or no place is named.");
        }

        Head = HubHead.Attach(this, headConfig);
        foreach (var (key, weight) in State)
        {
            weight.Path = key;
        }
    }

    /// <summary>The adapter's name, which its keys hold.</summary>
    public string Name => ((AdapterHubConfig)Config).Name;

    /// <summary>The head that trains with the adapter and lies in a file of its own; null where the model's own stays as it is.</summary>
    public HubHead? Head { get; }

    public override int PromptRows => _streamParts.Select(entry => entry.Part).OfType<HubPrompt>().Sum(prompt => prompt.Length);

    public override bool PromptTakesPositions => false;

    /// <summary>Whether a gate stands somewhere: a mean over all tokens of a sequence.</summary>
    internal bool IsGated => Methods.Any(method => method is BottleneckConfig { UseGating: true } or HubLoraConfig { UseGating: true } or HubPrefixConfig { UseGating: true });

    public override bool ReadsWholeSequences => IsGated || Methods.Any(method => method is ReftConfig { SuffixPositions: > 0 });

    /// <summary>The library's T5 counts a prefix among the keys, not among the queries.</summary>
    public override int DistanceShift(bool encodes) => _prefixes.Find(prefix => prefix.Kind == (encodes ? AttentionKind.Encoder : AttentionKind.Self))?.Length ?? 0;

    public override AttentionPrefix? CreatePrefix() => PrefixOf(AttentionKind.Self);

    public override AttentionPrefix? CreateEncoderPrefix() => PrefixOf(AttentionKind.Encoder);

    public override AttentionPrefix? CreateCrossPrefix() => PrefixOf(AttentionKind.Cross);

    internal HubArchitecture Architecture { get; }

    internal IReadOnlyList<HubMethod> Methods { get; }

    internal IEnumerable<(Site Site, SiteAdapter Part)> SiteParts => _siteParts.Select(entry => (entry.Site, entry.Part));

    internal IEnumerable<(string Key, Weight Weight)> HeadState => Head?.State ?? [];

    /// <summary>Weights of the adapter itself.</summary>
    internal IEnumerable<(string Key, Weight Weight)> OwnState => Shared.SkipLast(HeadState.Count());

    public override long TotalCount => Model.ParameterCount + OwnState.Where(entry => !entry.Weight.IsBuffer).Sum(entry => entry.Weight.ElementCount) + (Head?.AddedCount ?? 0);

    protected override IEnumerable<(string Key, Weight Weight)> Shared =>
        _shared.Select(entry => (entry.Key, entry.Weight))
            .Concat(_prefixes.SelectMany(prefix => prefix.State.Select(state => ($"{Architecture.Root}prefix_tuning.prefix_tunings.{Name}.{state.Name}", state.Weight))))
            .Concat(_streamParts.SelectMany(entry => entry.Part.State.Select(state => ($"{entry.Key}.{state.Name}", state.Weight))))
            .Concat(_siteParts.SelectMany(entry => entry.Part.State.Select(state => ($"{entry.Key}.{state.Name}", state.Weight))))
            .Select(entry => (Qualified(entry.Item1), entry.Item2))
            .Concat(HeadState);

    protected override IEnumerable<Weight> SharedDerived => _siteParts.SelectMany(entry => entry.Part.Derived);

    private AttentionPrefix? PrefixOf(AttentionKind kind) => _prefixes.Find(prefix => prefix.Kind == kind)?.Create();

    /// <summary>A model that takes flexible heads names its body, where a bare one does not.</summary>
    private string Qualified(string key) => Head is HubPredictionHead && Architecture is { Root: "", Base: { Length: > 0 } body } ? $"{body}.{key}" : key;

    internal void Attach(ResidualSite site, ResidualPart part)
    {
        // In a union the library's first config that names a place has it.
        if (site.PartOf(this) is null)
        {
            site.Attach(this, part);
            _streamParts.Add(($"{HubArchitecture.PlaceOf(site)}.adapters.{Name}", part, () => site.Detach(this)));
        }
    }

    internal void Attach(HiddenSite site, HiddenPart part, string box)
    {
        if (site.PartOf(this) is not null)
        {
            throw new AdapterException("configs", $"two of them stand at {site.Path}. Leave one out.");
        }

        site.Attach(this, part);
        _streamParts.Add(($"{site.Path}{box}.{Name}", part, () => site.Detach(this)));
    }

    /// <summary>Puts a part at a site; <paramref name="box"/> is what its keys have between the site and the adapter's name, or the whole key.</summary>
    internal void Attach(Site site, SiteAdapter part, string box, bool isKey = false)
    {
        site.Attach(this, part);
        _siteParts.Add((isKey ? box : $"{site.Path}.{box}.{Name}", site, part));
    }

    internal void Attach(HubPrefix prefix) => _prefixes.Add(prefix);

    /// <summary>Number of the first layer of the stack that a kind of attention is in.</summary>
    internal int FirstLayerOf(AttentionKind kind) =>
        Architecture.HasDecoder && kind is not AttentionKind.Encoder ? Model.Modules().OfType<HiddenSite>().Where(site => site.Path.Contains("decoder.", StringComparison.Ordinal)).Min(site => site.Layer) : 0;

    /// <summary>Number of the layer that a site is in, a decoder's after its encoder's; null outside of layers.</summary>
    internal int? LayerOf(Site site) => Model.Modules().OfType<HiddenSite>()
        .FirstOrDefault(end => end.Layer >= 0 && site.Path.StartsWith(end.Path[..(end.Path.LastIndexOf('.') + 1)], StringComparison.Ordinal))?.Layer;

    /// <summary>x as it was before an invertible adapter, where there is one.</summary>
    internal Tensor Inverted(Tensor x) => _streamParts.Select(entry => entry.Part).OfType<InvertiblePart>().FirstOrDefault()?.Invert(x) ?? x;

    /// <summary>A weight of the whole adapter, <c>BASE.shared_parameters.NAME.x</c>; one that is there already is given again.</summary>
    internal Weight Share(string box, string name, Func<Weight> make, Action<Weight, Generator, Device> initialize)
    {
        var key = $"{Architecture.Root}{box}.{Name}.{name}";
        if (_shared.Find(entry => entry.Key == key) is { Weight: { } known })
        {
            return known;
        }

        var weight = make();
        _shared.Add((key, weight, (generator, device) => initialize(weight, generator, device)));
        return weight;
    }

    protected override void InitializeShared(Generator generator)
    {
        var device = Model.Device;
        _shared.ForEach(entry => entry.Initialize(generator, device));
        _prefixes.ForEach(prefix => prefix.Initialize(generator, device));
        _streamParts.ForEach(entry => entry.Part.Initialize(generator, device));
        _siteParts.ForEach(entry => entry.Part.Initialize(entry.Site, generator));
        Head?.Initialize(generator, device);
    }

    protected override void PrepareShared()
    {
        _streamParts.ForEach(entry => entry.Part.Prepare());
        _siteParts.ForEach(entry => entry.Part.Prepare(entry.Site));
    }

    protected internal override void Settle()
    {
        using var frozen = no_grad();
        _streamParts.ForEach(entry => entry.Part.Settle());
    }

    protected override IEnumerable<(Site Site, SiteAdapter Part)> MergeableParts => SiteParts.Concat(Head?.Copies ?? []);

    /// <summary>
    /// Exact for LoRA, VeRA and, without biases, (IA)³. Throws <see cref="NotSupportedException"/> for what stands in the residual stream, and
    /// where the library's own merge changes what the adapter computes.
    /// </summary>
    public override void MergeAndUnload()
    {
        if (_streamParts.Count + _prefixes.Count > 0 || Head is HubPredictionHead)
        {
            throw new NotSupportedException(
                $"{(Head is HubPredictionHead ? "A flexible head" : _prefixes.Count > 0 ? "A prefix" : "An adapter in the residual stream")} is no change of a weight, so it cannot be merged. Serve it unmerged.");
        }

        base.MergeAndUnload();
    }

    protected override void Detach()
    {
        base.Detach();
        _streamParts.ForEach(entry => entry.Detach());
        _siteParts.ForEach(entry => entry.Site.Detach(this));
        Head?.Detach();
    }
}
