using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>
/// MonteCLoRA: in training A is A + Σ wₙ·c·Zₙ diag(σ), with normal Zₙ, variances σ² that the learnt ones spread by a Wishart draw, and weights w
/// from a Dirichlet distribution, drawn in its logarithm. Otherwise it is LoRA.
/// </summary>
internal sealed class MontecloraProjection : LoraProjection
{
    private const double LeastVariance = 1e-3;
    private const double LeastConcentration = 1e-6;

    private readonly MontecloraConfig _settings;
    private readonly long _width;
    private readonly Weight std_prior; // (r): logarithms of deviations
    private readonly Weight expert_weights_prior; // (samples): logarithms of concentrations
    private readonly Weight gaussian_var_prior; // (r, r)
    private readonly Weight expert_weights; // (samples)
    private readonly Weight _wishart; // (r): of the last draw
    private readonly Weight _mix; // (samples): of the last draw

    public MontecloraProjection(LoraConfig config, Projection site)
        : base(config, site)
    {
        _settings = config.MontecloraConfig!;
        _width = site.InFeatures;
        std_prior = new Weight(Rank) { Trainable = true };
        expert_weights_prior = new Weight(_settings.NumSamples) { Trainable = true };
        gaussian_var_prior = new Weight(Rank, Rank) { IsBuffer = true };
        expert_weights = new Weight(_settings.NumSamples) { IsBuffer = true };
        (_wishart, _mix) = (new Weight(Rank), new Weight(_settings.NumSamples));
    }

    /// <summary>Draws that are used before any are made, for repeating a run of another program.</summary>
    internal Queue<MontecloraDraw> Prescribed { get; } = [];

    public override IEnumerable<(string Name, Weight Weight)> State =>
    [
        .. base.State, ("lora_monteclora_sampler.std_prior", std_prior), ("lora_monteclora_sampler.expert_weights_prior", expert_weights_prior),
        ("lora_monteclora_sampler.gaussian_var_prior", gaussian_var_prior), ("lora_monteclora_sampler.expert_weights", expert_weights),
    ];

    public override IEnumerable<Weight> Derived => [.. base.Derived, _wishart, _mix];

    internal override IEnumerable<(string Name, Weight Weight)> Progress =>
        [(nameof(gaussian_var_prior), gaussian_var_prior), (nameof(expert_weights), expert_weights)];

    protected override Tensor Low(Tensor x, in SiteCall call)
    {
        if (!Prescribed.TryDequeue(out var draw))
        {
            if (call.Batch.Dropout is not { } generator)
            {
                return base.Low(x, call);
            }

            draw = Draw(generator, x.device);
        }

        _wishart.Set(draw.Wishart.clone());
        _mix.Set(draw.Mix.clone());
        var (variance, weights) = (Variance(), Weights());
        using (no_grad())
        {
            gaussian_var_prior.Set(variance.detach().diag());
            expert_weights.Set(weights.detach().clone());
        }

        var mixed = draw.Noise.mul(weights.view(-1, 1, 1)).sum([0]).mul(variance.sqrt()).Times(_settings.SampleScaler); // [in, r]
        return F.linear(x, A.Plus(mixed.t()).to(x.dtype)); // [n, r]
    }

    public override void Initialize(Site site, Generator generator)
    {
        base.Initialize(site, generator);
        var device = site.Weight.Value.device;
        std_prior.Set(rand(Rank, generator: generator).to(device));
        expert_weights_prior.Set(rand(_settings.NumSamples, generator: generator).to(device));
        gaussian_var_prior.Set(eye(Rank, device: device));
        expert_weights.Fill(1.0 / _settings.NumSamples, device);
    }

    /// <summary>The divergence of what is learnt from the priors, and where asked for the sum of squared weights.</summary>
    public override Tensor? Regularization()
    {
        if (!_wishart.IsLoaded)
        {
            return null;
        }

        using var scope = NewDisposeScope();
        var (concentration, deviation) = (expert_weights_prior.Value.exp(), std_prior.Value.exp());
        var divergence = DirichletDivergence(concentration).Plus(WishartDivergence(deviation.mul(deviation))).Plus(NormalDivergence(Variance()));
        var loss = divergence.Times(_settings.KlLossWeight);
        if (_settings.UseEntropy)
        {
            var weights = Weights();
            loss = loss.Plus(weights.mul(weights).sum());
        }

        return loss.MoveToOuterDisposeScope();
    }

    /// <summary>σ² [r] of the last draw.</summary>
    private Tensor Variance()
    {
        var deviation = std_prior.Value.exp();
        return deviation.mul(deviation).mul(_wishart.Value).AtLeast(LeastVariance);
    }

    /// <summary>w [samples] of the last draw.</summary>
    private Tensor Weights()
    {
        var concentration = expert_weights_prior.Value.exp().AtLeast(LeastConcentration);
        var logarithm = concentration.log();
        double count = _settings.NumSamples;
        var spread = concentration.reciprocal().Times(1 - (2 / count)).Plus(concentration.reciprocal().sum().Times(1 / (count * count)));
        var deviation = spread.AtLeast(LeastConcentration).Plus(LeastConcentration).sqrt();
        return deviation.mul(_mix.Value).Plus(logarithm.Minus(logarithm.mean())).softmax(-1);
    }

    private Tensor DirichletDivergence(Tensor concentration)
    {
        var prior = full_like(concentration, _settings.DirichletPrior.ToScalar());
        var total = concentration.sum();
        return total.lgamma().Minus(prior.sum().lgamma())
            .Plus(concentration.lgamma().Minus(prior.lgamma()).sum())
            .Plus(concentration.Minus(prior).mul(concentration.digamma().Minus(total.digamma())).sum());
    }

    private Tensor WishartDivergence(Tensor variance) =>
        variance.sum().Minus(variance.log().sum()).Times(Rank).Plus(-(double)Rank * Rank).Times(0.5);

    private Tensor NormalDivergence(Tensor variance)
    {
        var clamped = variance.AtLeast(1e-6);
        return clamped.sum().Minus(clamped.log().sum()).Plus(-Rank).Times(0.5 * _settings.NumSamples);
    }

    private MontecloraDraw Draw(Generator generator, Device device)
    {
        var squares = randn(Rank, Rank, generator: generator); // the diagonal of a Wishart matrix is a chi-squared draw each
        return new MontecloraDraw(
            randn(_settings.NumSamples, _width, Rank, generator: generator).to(device), squares.mul(squares).sum(1).to(device),
            randn(_settings.NumSamples, generator: generator).to(device));
    }
}

/// <summary>One draw: normal noise [samples, in, r], the diagonal of a Wishart matrix [r], normal numbers for the mix [samples].</summary>
internal sealed record MontecloraDraw(Tensor Noise, Tensor Wishart, Tensor Mix);
