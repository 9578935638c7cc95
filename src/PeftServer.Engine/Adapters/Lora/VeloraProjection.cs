using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>
/// VeLoRA: the forward pass is LoRA's. The gradient of A is made of inputs x̂ rebuilt from one number a group: x̂ = (x·e)e for a direction e
/// that groups share. The backward pass keeps those numbers, not x.
/// </summary>
internal sealed class VeloraProjection : LoraProjection
{
    private readonly VeloraConfig _settings;
    private readonly long _width; // of a group
    private readonly Weight lora_velora_embed; // (width)
    private bool _hasDirection;

    public VeloraProjection(LoraConfig config, Projection site)
        : base(config, site)
    {
        _settings = config.VeloraConfig!;
        _width = (site.InFeatures + _settings.NumGroups - 1) / _settings.NumGroups;
        lora_velora_embed = new Weight(_width) { IsBuffer = true };
    }

    public override IEnumerable<(string Name, Weight Weight)> State => base.State.Append((nameof(lora_velora_embed), lora_velora_embed));

    internal override IEnumerable<(string Name, Weight Weight)> Progress => [(nameof(lora_velora_embed), lora_velora_embed)];

    protected override Tensor Low(Tensor x, in SiteCall call)
    {
        if (!is_grad_enabled() || !A.requires_grad)
        {
            return base.Low(x, call);
        }

        Tensor groups, kept, direction;
        using (no_grad())
        {
            groups = Grouped(x.detach()); // [n, groups, width]
            if (!GradientCheckpoints.RunsAgain)
            {
                Turn(groups);
            }

            direction = lora_velora_embed.Value.to(x.dtype);
            kept = groups.reshape(-1, _width).mv(direction).view(x.size(0), -1); // [n, groups]
        }

        // Its value is z, its gradient by A that of x̂Aᵀ, by x that of xAᵀ.
        var rebuilt = Grouped(A.to(x.dtype)).mul(direction).sum(2).Times(_settings.Scale); // [r, groups]
        var trained = F.linear(kept, rebuilt); // [n, r]
        return F.linear(x, A.detach().to(x.dtype)).Plus(trained.Minus(trained.detach()));
    }

    public override void Initialize(Site site, Generator generator)
    {
        base.Initialize(site, generator);
        _hasDirection = _settings.InitType == "random";
        lora_velora_embed.Normal(_hasDirection ? 1 : 0, generator, site.Weight.Value.device);
        if (_hasDirection)
        {
            lora_velora_embed.Set(Unit(lora_velora_embed.Value));
        }
    }

    public override void Prepare(Site site)
    {
        base.Prepare(site);
        Resume();
    }

    internal override void Resume() => _hasDirection = lora_velora_embed.Value.count_nonzero().item<long>() > 0;

    /// <summary>Turns the direction to the mean of all groups, where it follows the batches.</summary>
    private void Turn(Tensor groups)
    {
        if (_settings.InitType == "random" || (_settings.InitType == "batch_average_once" && _hasDirection))
        {
            return;
        }

        lora_velora_embed.Value.copy_(Unit(groups.to(ScalarType.Float32).reshape(-1, _width).mean([0])));
        _hasDirection = true;
    }

    /// <summary>[m, in] as [m, groups, width], zeros at the end.</summary>
    private Tensor Grouped(Tensor x) => F.pad(x, [0, (_settings.NumGroups * _width) - x.size(1)]).view(x.size(0), _settings.NumGroups, _width);

    private static Tensor Unit(Tensor direction)
    {
        var norm = direction.norm();
        return where(norm.gt(TensorArithmetic.Zero), direction.div(norm), ones_like(direction).div(ones_like(direction).norm()));
    }
}
