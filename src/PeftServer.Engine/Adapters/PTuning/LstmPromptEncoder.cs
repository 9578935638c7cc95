using PeftServer.Engine.Adapters.Prompts;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.PTuning;

/// <summary>A bidirectional LSTM over a table's rows, with dropout between its layers, then W₂ relu(W₁ h + b₁) + b₂.</summary>
internal sealed class LstmPromptEncoder : PromptEncoder
{
    private readonly Weight _table;
    private readonly LstmDirection[][] _layers;
    private readonly DenseLayer _inner;
    private readonly DenseLayer _outer;
    private readonly double _dropout;

    public LstmPromptEncoder(int rows, int width, int hidden, int layers, double dropout)
    {
        _dropout = dropout;
        _table = new Weight(rows, width) { Trainable = true };
        _layers = [.. Enumerable.Range(0, layers).Select(layer => new LstmDirection[]
        {
            new($"l{layer}", layer == 0 ? width : 2 * hidden, hidden, isReverse: false),
            new($"l{layer}_reverse", layer == 0 ? width : 2 * hidden, hidden, isReverse: true),
        })];
        (_inner, _outer) = (new DenseLayer("mlp_head.0", 2 * hidden, 2 * hidden), new DenseLayer("mlp_head.2", 2 * hidden, width));
    }

    public override IEnumerable<(string Name, Weight Weight)> Weights =>
        [("embedding.weight", _table), .. _layers.SelectMany(layer => layer).SelectMany(direction => direction.Weights), .. _inner.Weights, .. _outer.Weights];

    public override Tensor Encode() => Encode(null);

    public override Tensor Encode(Generator? draws)
    {
        using var scope = NewDisposeScope();
        var x = _table.Value.alias(); // [rows, width]
        for (var i = 0; i < _layers.Length; i++)
        {
            x = i == 0 ? x : Dropout.Apply(x, _dropout, draws);
            x = cat([.. _layers[i].Select(direction => direction.Forward(x))], -1); // [rows, 2·hidden]
        }

        return _outer.Forward(_inner.Forward(x).relu()).MoveToOuterDisposeScope(); // [rows, width]
    }

    public override void Initialize(PretrainedModel model, Generator generator)
    {
        _table.Normal(1, generator, model.Device);
        foreach (var direction in _layers.SelectMany(layer => layer))
        {
            direction.Initialize(generator, model.Device);
        }

        _inner.Initialize(generator, model.Device);
        _outer.Initialize(generator, model.Device);
    }
}

/// <summary>One direction of one layer of nn.LSTM; gates in torch's order: input, forget, cell, output.</summary>
internal sealed class LstmDirection(string suffix, int inFeatures, int hidden, bool isReverse)
{
    private readonly Weight _fromInput = new(4 * hidden, inFeatures) { Trainable = true };
    private readonly Weight _fromHidden = new(4 * hidden, hidden) { Trainable = true };
    private readonly Weight _inputBias = new(4 * hidden) { Trainable = true };
    private readonly Weight _hiddenBias = new(4 * hidden) { Trainable = true };

    public IEnumerable<(string Name, Weight Weight)> Weights =>
    [
        ($"lstm_head.weight_ih_{suffix}", _fromInput), ($"lstm_head.weight_hh_{suffix}", _fromHidden),
        ($"lstm_head.bias_ih_{suffix}", _inputBias), ($"lstm_head.bias_hh_{suffix}", _hiddenBias),
    ];

    /// <summary>x [rows, in] → the hidden state after each row, [rows, hidden].</summary>
    public Tensor Forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        var inputs = F.linear(x, _fromInput.Value, _inputBias.Value); // [rows, 4·hidden]
        var (h, c) = (zeros([1, hidden], dtype: x.dtype, device: x.device), zeros([1, hidden], dtype: x.dtype, device: x.device));
        var outputs = new Tensor[x.size(0)];
        for (var step = 0; step < outputs.Length; step++)
        {
            var row = isReverse ? outputs.Length - 1 - step : step;
            var gates = inputs.narrow(0, row, 1).Plus(F.linear(h, _fromHidden.Value, _hiddenBias.Value)).chunk(4, -1); // [1, hidden] each
            c = gates[1].sigmoid().mul(c).Plus(gates[0].sigmoid().mul(gates[2].tanh()));
            h = gates[3].sigmoid().mul(c.tanh());
            outputs[row] = h;
        }

        return cat(outputs, 0).MoveToOuterDisposeScope();
    }

    /// <summary>As nn.LSTM starts: all uniform within 1/√hidden.</summary>
    public void Initialize(Generator generator, Device device)
    {
        foreach (var (_, weight) in Weights)
        {
            weight.Kaiming(hidden, generator, device);
        }
    }
}
