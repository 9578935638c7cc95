using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>y += s·B(A(dropout(x))) at a projection, less what the base lost to the start of A and B. The variants of LoRA derive from this.</summary>
internal class LoraProjection : AdditiveSiteAdapter
{
    private readonly Weight lora_A; // (r, in)
    private readonly Weight lora_B; // (out, r)
    private readonly Weight? lora_B_bias; // (out)
    private readonly KeptScalar _scale;
    private readonly BaseShift? _shift;
    private (Tensor A, Tensor B)? _calibrated;

    internal Tensor A => lora_A.Value;

    internal Tensor B => lora_B.Value;

    internal int Rank { get; }

    internal double Scale { get; }

    /// <summary>Whether this is LoRA and nothing else: a product of two matrices that both train.</summary>
    internal bool IsPlain => GetType() == typeof(LoraProjection) && lora_B_bias is null && _shift is null && TrainsBoth;

    internal bool TrainsBoth => lora_A.Trainable && lora_B.Trainable;

    /// <summary>What the base lost; null where it is whole.</summary>
    internal BaseShift? Shift => _shift;

    protected LoraConfig Config { get; }

    protected Scalar KeptScale => _scale;

    public LoraProjection(LoraConfig config, Projection site)
        : this(config, site, null)
    {
    }

    /// <param name="config">The settings.</param>
    /// <param name="site">Where the part goes.</param>
    /// <param name="shapes">Shapes of A and B where they are not (r, in) and (out, r), for the rank at the site.</param>
    protected LoraProjection(LoraConfig config, Projection site, Func<int, (long[] A, long[] B)>? shapes)
    {
        Config = config;
        var (r, scale) = config.RankAt(site.Path);
        if (config.InitLoraWeights.NeedsPlainShapes && config.InitLoraWeights.Name is not ("orthogonal" or "eva") && r > Math.Min(site.InFeatures, site.OutFeatures))
        {
            throw new AdapterException("r", $"init_lora_weights '{config.InitLoraWeights.Name}' needs r of at most {Math.Min(site.InFeatures, site.OutFeatures)} at {site.Path}, not {r}.");
        }

        (Rank, Scale, _scale) = (r, scale, new KeptScalar(scale));
        var (a, b) = shapes?.Invoke(r) ?? ([r, site.InFeatures], [site.OutFeatures, r]);
        lora_A = new Weight(a) { Trainable = true };
        lora_B = new Weight(b) { Trainable = config.InitLoraWeights.Name != "mica" };
        lora_B_bias = config.LoraBias ? new Weight(site.OutFeatures) { Trainable = true } : null;
        _shift = ShiftOf(config, site, r, scale);
    }

    public override IEnumerable<(string Name, Weight Weight)> State
    {
        get
        {
            yield return ("lora_A.weight", lora_A);
            yield return ("lora_B.weight", lora_B);
            if (lora_B_bias is not null)
            {
                yield return ("lora_B.bias", lora_B_bias);
            }
        }
    }

    public override IEnumerable<Weight> Derived => _shift?.Weights ?? [];

    internal override IEnumerable<(string Name, Weight Weight)> Start =>
        Config.InitLoraWeights.NeedsStart && _shift?.Factors is { } factors
            ? [("lora_A.weight", factors.Right), ("lora_B.weight", factors.Left)]
            : [];

    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();

        // In the type of x: on a bfloat16 base the products are bfloat16, the weights behind them stay float32.
        var dropped = Dropout.Apply(x, Config.LoraDropout, call.Batch.Dropout);
        var delta = High(Low(dropped, call).mul(_scale)); // [n, out]
        if (lora_B_bias is not null)
        {
            delta = delta.Plus(lora_B_bias.Value.mul(_scale).to(x.dtype));
        }

        return (_shift is null ? delta : delta.Minus(_shift.Apply(x))).MoveToOuterDisposeScope();
    }

    /// <summary>What A makes of x: [n, r].</summary>
    protected virtual Tensor Low(Tensor x, in SiteCall call) => F.linear(x, A.to(x.dtype));

    /// <summary>What B makes of that: [n, out].</summary>
    protected virtual Tensor High(Tensor low) => F.linear(low, B.to(low.dtype));

    /// <summary>BA: [out, in] in float32, without the scale.</summary>
    protected virtual Tensor Product() => B.to(ScalarType.Float32).mm(A.to(ScalarType.Float32));

    public override void Initialize(Site site, Generator generator)
    {
        var projection = (Projection)site;
        var device = site.Weight.Value.device;
        var (a, b) = Config.InitLoraWeights.Name switch
        {
            _ when _calibrated is { } ready => ready,
            _ when Config.InitLoraWeights.IsFromData => throw new AdapterException(
                "init_lora_weights", $"'{Config.InitLoraWeights.Name}' starts from training data, and there is none."),
            "orthogonal" => LoraInitialization.Orthogonal(lora_A.Shape, lora_B.Shape, generator),
            "mica" => LoraInitialization.Minor(projection, Rank),
            _ when Config.InitLoraWeights.TakesFromBase => TakeFromBase(projection),
            _ => Draw(generator),
        };
        if (Config.InitLoraWeights.NeedsStart)
        {
            _shift!.Set(b, a);
        }

        lora_A.Set(a.to(device, copy: true));
        lora_B.Set(b.to(device, copy: true));
        lora_B_bias?.Set(zeros(lora_B_bias.Shape[0], device: device));
        if (_calibrated is { } used)
        {
            used.A.Dispose();
            used.B.Dispose();
            _calibrated = null;
        }
    }

    /// <summary>A and B where nothing but shapes and the generator decides.</summary>
    protected virtual (Tensor A, Tensor B) Draw(Generator generator) => LoraInitialization.Drawn(Config.InitLoraWeights, lora_A.Shape, lora_B.Shape, generator);

    public override void Prepare(Site site)
    {
        if (_shift is { IsLoaded: false })
        {
            TakeFromBase((Projection)site);
        }
    }

    public override Tensor Merge(Site site, Tensor weight)
    {
        var merged = weight.to(ScalarType.Float32).Plus(Product().mul(_scale)); // [out, in]
        return _shift is null ? merged : merged.Minus(_shift.Dense());
    }

    public override Tensor? MergeBias(Site site, Tensor? bias) => lora_B_bias is null ? bias
        : bias is null ? throw new NotSupportedException($"lora_bias: the bias of the update cannot be merged into {site.Path}, which has none. Serve it unmerged.")
        : bias.to(ScalarType.Float32).Plus(lora_B_bias.Value.mul(_scale));

    /// <summary>Takes over A and B.</summary>
    internal void Set(Tensor a, Tensor b)
    {
        lora_A.Set(a.clone());
        lora_B.Set(b.clone());
    }

    /// <summary>Starts from matrices that the training data gave, which are this part's from now on.</summary>
    internal void StartFrom(Tensor a, Tensor b) => _calibrated = (a, b);

    /// <summary>Room for what the base loses; null where it loses nothing.</summary>
    private static BaseShift? ShiftOf(LoraConfig config, Projection site, int r, double scale) => config.InitLoraWeights.Name == "loftq"
        ? BaseShift.Whole(site)
        : config.InitLoraWeights.TakesFromBase || config.KasaConfig is not null ? BaseShift.OfRank(site, r, scale) : null;

    /// <summary>Finds the start that W alone decides, and takes it out of the base.</summary>
    protected virtual (Tensor A, Tensor B) TakeFromBase(Projection site)
    {
        if (Config.InitLoraWeights.Name == "loftq")
        {
            var (first, second, lost) = Loftq.Start(site, Rank, Config.LoftqConfig);
            _shift!.Set(lost);
            return (first, second);
        }

        var (a, b) = Config.InitLoraWeights.Name == "olora"
            ? LoraInitialization.Orthonormal(site, Rank)
            : LoraInitialization.Principal(site, Rank, Scale, Config.InitLoraWeights.Iterations);
        _shift!.Set(b, a);
        return (a, b);
    }
}
