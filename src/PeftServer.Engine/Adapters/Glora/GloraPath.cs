using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Glora;

/// <summary>One of GLoRA's five tensors: a product of low rank, a vector, a constant, or zeros that are saved for nothing.</summary>
internal sealed class GloraPath
{
    private readonly string _form;
    private readonly Weight[] _weights;

    public GloraPath(string form, long rows, long columns, int r, bool matrix)
    {
        _form = form;
        _weights = form switch
        {
            "lora" => [new Weight(rows, r) { Trainable = true }, new Weight(r, columns) { Trainable = true }],
            "vector" => [matrix ? new Weight(rows, 1) { Trainable = true } : new Weight(rows) { Trainable = true }],
            "constant" => [new Weight(1) { Trainable = true }],
            _ => [matrix ? new Weight(rows, columns) { IsBuffer = true } : new Weight(rows) { IsBuffer = true }],
        };
    }

    public IEnumerable<(string Name, Weight Weight)> State(string name) => _form switch
    {
        "lora" => [($"{name}.Xd", _weights[0]), ($"{name}.Xu", _weights[1])],
        "vector" or "constant" => [($"{name}.X", _weights[0])],
        _ => [($"{name}.zeros", _weights[0])],
    };

    public Tensor Value() => _form == "lora" ? _weights[0].Value.mm(_weights[1].Value) : _weights[0].Value.alias();

    public void Initialize(bool atZero, Generator generator, Device device)
    {
        foreach (var weight in _weights)
        {
            weight.Normal(_form == "none" || atZero ? 0 : 0.1, generator, device);
        }

        // Only one factor starts at zero, or neither could move.
        if (_form == "lora")
        {
            _weights[1].Kaiming(_weights[1].Shape[1], generator, device);
        }
    }
}
